"""FlowMo in the shape of other libraries, each in a file of its own name, which alone imports it."""
