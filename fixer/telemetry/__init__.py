"""What is told: events of the datapath as ECS log lines."""
