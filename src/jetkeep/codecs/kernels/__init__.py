"""The few hot loops, compiled where a C compiler was there at installation, interpreted where not."""

from jetkeep.codecs.kernels import _blocks, _kernels, _xxh3

#: All kernels run compiled. Interpreted they give the same results, some thirty times slower: say so once to whoever waits.
COMPILED: bool = bool(_blocks.COMPILED and _kernels.COMPILED and _xxh3.COMPILED)
