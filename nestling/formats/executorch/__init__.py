"""ExecuTorch's programs, .pte, and those of a backbone alone, .features.pte.

format.py             their lines in the table
bundle_program.py     bundle -> program: its Graph as a torch module (graph_program.py), weights with a zero point made
                      symmetric (symmetric.py), lowered (printing.py)
training_program.py   a head's loss and gradients as a program; gradients.py asks it
run.py                a program run, layer_times.py where its time goes
"""
