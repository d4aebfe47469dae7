"""What would the policy have done there: recorded bags, judged."""
