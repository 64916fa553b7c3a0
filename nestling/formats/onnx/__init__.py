""".onnx, which ONNX Runtime and OpenVINO run. Importing and printing need no torch.

format.py      its line in the table
printing.py    Graph -> bytes: which operators a node becomes (print_operators.py), what these are put together from (pieces.py)
file.py        the checks of a file that may be anybody's
run.py         the file in a runtime (runtimes.py, openvino.py), inside.py whether it is the Graph's, layer_times.py where its
               time goes
"""
