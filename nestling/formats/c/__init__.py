"""The C target: the int8 Graph as plain C, for the host and for small machines."""
