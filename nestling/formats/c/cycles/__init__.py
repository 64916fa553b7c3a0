"""An estimate of the clock cycles that a program takes on a Cortex-M, from the instructions that QEMU executed."""
