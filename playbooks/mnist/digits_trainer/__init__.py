"""Learns to read handwritten digits: a softmax classifier in plain Python, on a small set that it draws itself."""
