"""How far are exported models from PyTorch?"""
