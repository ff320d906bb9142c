"""The modules that every package may import; they import no other module of Colophon."""
