"""How fast are the fused kernels, where does a model's time go, and does training with them follow cuDNN's?"""
