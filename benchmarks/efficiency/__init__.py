"""How fast is Sequencer beside its peers, and how much memory does it take?"""
