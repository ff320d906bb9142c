"""The files of `deploy/`, as far as one machine can check them."""
