"""The server: front ends over one data plane, over a lifecycle, over runtimes."""
