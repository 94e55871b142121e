"""Speed and memory of Sequencer and its peers under a decoder (`speed`), and their tables and figure (`shown`)."""
