"""The engine: one task per sandbox, its journal, and what the acts share. See docs/engine.md."""
