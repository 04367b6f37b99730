"""Films that are drawn here: emoji that move over painted grounds, and bodies that tumble and collide."""
