"""The last phase: what v1 leaves behind is cleaned away, stage by stage, each refused until it is safe."""
