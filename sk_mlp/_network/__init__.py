"""Networks as functions of their packed parameters: layouts, values and gradients."""
