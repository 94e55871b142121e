"""Sequencer under a decoder: speed and memory beside its peers (`speed`), and what shows them (`shown`)."""
