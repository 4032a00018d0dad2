"""What there is to do: exposures, pipelines, associations, and the plan of them."""
