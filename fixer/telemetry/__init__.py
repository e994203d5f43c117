"""What is told: what happens to packets, connections and sources as ECS log lines."""
