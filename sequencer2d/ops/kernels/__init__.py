"""The fused kernels: device code by language and direction, and the functions that launch it.

`triton_*` is written in Triton, `gluon_*` in Gluon, Triton's lower level. In each, `common` holds what the directions
share, `forward` and `backward` hold the kernels, and `launch` calls them from Python. `launching` compiles and starts a
kernel of either kind. A module here is imported when one of its kernels runs: Triton is an optional dependency.
"""
