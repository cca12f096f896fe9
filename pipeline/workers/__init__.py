"""Helper processes: what blocks or may crash (pictures, videos, OCR, the embedded model) runs in one of these.

A helper process serves one server process over a pair of pipes, is started when it is first needed, and can be killed
at any time. It accepts no connections and runs no pipeline: it is not a *server worker*, which is one of several
server processes that share a port.
"""
