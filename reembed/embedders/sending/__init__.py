"""How texts are sent: batches, workers, retries, rates and what an answer must be."""
