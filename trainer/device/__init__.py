"""The parts of a training that depend on the machine: compilation, float8, memory, copies to the host."""
