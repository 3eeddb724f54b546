"""What a sweep does, stage by stage; imports `report` and the layers below, `tasks`, `cluster` and `tune`."""
