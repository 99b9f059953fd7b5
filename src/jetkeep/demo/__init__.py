"""The whole loop on throw-away servers: fill, back up, destroy, restore into another version, compare, drill."""

from jetkeep.demo.story import DemoReport, StreamStory, tell

__all__ = ["DemoReport", "StreamStory", "tell"]
