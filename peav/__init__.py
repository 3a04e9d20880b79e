"""PE-AV: one embedding space for audio, video and text, and everything below it.

Modules
-------
errors       mistakes a user can make, as one clear line
media        audio in and out: the only place that touches files with sound in them
codec        DAC-VAE: waveform to latent and back
transformer  the temporal transformer that all towers share
text         frozen sentence encoder behind the text heads
model        audio tower and heads: the embedder
losses       pairwise sigmoid contrastive loss
checkpoints  weights on disk: safetensors beside a config
training     the parts that every training script shares
"""
