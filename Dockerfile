# skipmodal on the CPU:  docker build -t skipmodal .
#   docker run --rm -v "$PWD:/data" skipmodal img2speech photo.jpg -o photo.wav
# The bundled model is for research and education only, and so is this image.
FROM python:3.11-slim
# Give TORCH_INDEX the address that PyTorch's install page names for "CPU"; without it pip brings CUDA, several GB.
ARG TORCH_INDEX=
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY . /src
RUN pip install --no-cache-dir /src
WORKDIR /data
ENTRYPOINT ["skipmodal"]
