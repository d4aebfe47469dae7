"""Does the policy do the task: episodes in a simulator, counted, with intervals."""
