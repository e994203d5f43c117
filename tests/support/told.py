"""What tests have to say at the end of a run, beside whether they passed: `record_property(TOLD, line)`."""

TOLD = "told"
