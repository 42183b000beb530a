package dev.tidemark.bench.cli;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;

/** A cable between a source and a receiver, for one connection, that can be cut. */
final class Cable implements AutoCloseable {
  private final ServerSocket listener = new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
  private final int port;
  private final long cutAfter;
  private final boolean reset;
  private Socket source;
  private Socket receiver;

  /**
   * @param address of the receiver
   * @param cutAfter bytes from the source to let through before it is cut; more for never
   * @param reset whether both ends see a reset, instead of the end of the stream
   */
  Cable(String address, long cutAfter, boolean reset) throws IOException {
    this.port = Integer.parseInt(address.substring(address.lastIndexOf(':') + 1));
    this.cutAfter = cutAfter;
    this.reset = reset;
    Thread.ofPlatform().daemon().name("cable").start(this::run);
  }

  /** Where the source connects to. */
  String address() {
    return "tcp:127.0.0.1:" + listener.getLocalPort();
  }

  private void run() {
    try {
      Socket from = listener.accept();
      Socket to = new Socket(InetAddress.getLoopbackAddress(), port);
      synchronized (this) {
        source = from;
        receiver = to;
      }
      Thread back =
          Thread.ofPlatform()
              .daemon()
              .name("cable back")
              .start(() -> pump(to, from, Long.MAX_VALUE));
      pump(from, to, cutAfter);
      back.join();
    } catch (IOException | InterruptedException e) {
      cut();
    }
  }

  private void pump(Socket from, Socket to, long limit) {
    byte[] buffer = new byte[1 << 14];
    long left = limit;
    try {
      InputStream in = from.getInputStream();
      OutputStream out = to.getOutputStream();
      while (left > 0) {
        int n = in.read(buffer, 0, (int) Math.min(buffer.length, left));
        if (n < 0) {
          to.shutdownOutput();
          return;
        }
        out.write(buffer, 0, n);
        left -= n;
      }
      cut();
    } catch (IOException e) {
      cut();
    }
  }

  /** Cuts it now. */
  synchronized void cut() {
    for (Socket end : new Socket[] {source, receiver}) {
      if (end != null) {
        try {
          if (reset) {
            end.setSoLinger(true, 0);
          }
          end.close();
        } catch (IOException e) {
          // It is closed.
        }
      }
    }
  }

  @Override
  public void close() throws IOException {
    listener.close();
    cut();
  }
}
