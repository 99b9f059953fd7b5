"""The v1 snapshot: a tar of file-store blocks. Servers 2.10 to 2.14 send it, all to 2.15 restore it."""

from jetkeep.codecs.msgblock.tar_reader import TarDecoder
from jetkeep.codecs.msgblock.tar_writer import TarEncoder

__all__ = ["TarDecoder", "TarEncoder"]
