"""Train image-text dual encoders by contrastive learning."""
