""".tflite, LiteRT's (TensorFlow Lite's). Importing, printing and reading need no torch.

format.py           its line in the table
printing.py         Graph -> bytes: which operators a node becomes (print_operators.py), and how they are named, so that the
                    Graph can be read back; a list of operators and tensors as bytes (flatbuffer.py); labels and
                    preprocessing inside the file (metadata.py)
read.py             bytes -> Graph: checked tensors and operators (file.py), the Graph under construction (read_builder.py),
                    one reader an operator (read_operators.py), operators whose inputs are all constants
                    (read_constants.py), arithmetic that is a table (read_normalization.py)
normalization.py    what the file says of how its input was made
run.py              the file in LiteRT, inside.py whether it is the Graph's, layer_times.py where its time goes
"""
