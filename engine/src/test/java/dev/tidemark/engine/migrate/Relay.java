package dev.tidemark.engine.migrate;

import java.io.IOException;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Stands between the two ends of a migration, and breaks the connection at a byte of one direction:
 * once so many were passed on, or at once if there are to be none.
 */
final class Relay implements AutoCloseable {
  /** What becomes of the connection. */
  enum Fault {
    /** Nothing. */
    NONE,
    /** Both directions end, as if both ends had closed in good order; what comes later is lost. */
    END,
    /** Both ends see a reset, as after a crash of the other's process. */
    RESET,
    /** One direction ends, the other goes on. */
    HALF_CLOSE,
    /** Nothing more is passed on, and nobody is told, as after a pulled cable. */
    SILENCE,
    /** One direction goes on with a byte at a time. */
    DRIP
  }

  private static final int DRIP_MILLIS = 10;

  private final ServerSocket listener;
  private final InetSocketAddress destination;
  private final boolean forward;
  private final long at;
  private final Fault fault;
  private final AtomicLong passedForward = new AtomicLong();
  private final AtomicLong passedBack = new AtomicLong();
  private volatile boolean broken;
  private volatile Socket source;
  private volatile Socket target;

  /**
   * @param destination where it connects, once the source has connected here
   * @param forward whether the bytes towards the destination count, or those back
   * @param at how many pass before the fault
   */
  Relay(InetSocketAddress destination, boolean forward, long at, Fault fault) throws IOException {
    this.destination = destination;
    this.forward = forward;
    this.at = fault == Fault.NONE ? Long.MAX_VALUE : at;
    this.fault = fault;
    this.listener = new ServerSocket(0, 1, InetAddress.getByName("127.0.0.1"));
    Thread.ofPlatform().daemon().name("relay").start(this::run);
  }

  InetSocketAddress address() {
    return new InetSocketAddress(listener.getInetAddress(), listener.getLocalPort());
  }

  long passedForward() {
    return passedForward.get();
  }

  long passedBack() {
    return passedBack.get();
  }

  private void run() {
    try {
      source = listener.accept();
      target = new Socket(destination.getAddress(), destination.getPort());
      source.setTcpNoDelay(true);
      target.setTcpNoDelay(true);
      Thread.ofPlatform()
          .daemon()
          .name("relay back")
          .start(() -> pump(target, source, passedBack, forward ? Long.MAX_VALUE : at));
      pump(source, target, passedForward, forward ? at : Long.MAX_VALUE);
    } catch (IOException e) {
      // The test has ended.
    }
  }

  /** Passes bytes on until the fault. */
  private void pump(Socket from, Socket to, AtomicLong passed, long until) {
    byte[] buffer = new byte[1 << 16];
    try {
      while (true) {
        if (passed.get() >= until) {
          breakIt(from, to);
          return;
        }
        int got =
            from.getInputStream()
                .read(buffer, 0, (int) Math.min(buffer.length, until - passed.get()));
        if (got < 0) {
          to.shutdownOutput();
          return;
        }
        if (broken && fault == Fault.SILENCE) {
          return;
        }
        if (!broken || fault == Fault.HALF_CLOSE || fault == Fault.DRIP) {
          to.getOutputStream().write(buffer, 0, got);
        }
        passed.addAndGet(got);
      }
    } catch (IOException e) {
      // One of the ends is gone; the other has to hear of it.
      if (!broken) {
        closeQuietly(from);
        closeQuietly(to);
      }
    }
  }

  private void breakIt(Socket from, Socket to) throws IOException {
    broken = true;
    switch (fault) {
      case END -> {
        to.shutdownOutput();
        from.shutdownOutput();
        drain(from);
      }
      case RESET -> reset();
      case HALF_CLOSE -> {
        to.shutdownOutput();
        drain(from);
      }
      case DRIP -> {
        for (int next = from.getInputStream().read();
            next >= 0;
            next = from.getInputStream().read()) {
          to.getOutputStream().write(next);
          sleep();
        }
        to.shutdownOutput();
      }
      case SILENCE -> {
        // Both sockets stay open, and nobody reads them.
      }
      case NONE -> throw new AssertionError();
    }
  }

  /** Resets both connections, now. */
  void reset() throws IOException {
    broken = true;
    source.setSoLinger(true, 0);
    target.setSoLinger(true, 0);
    source.close();
    target.close();
  }

  private static void drain(Socket from) throws IOException {
    from.getInputStream().transferTo(OutputStream.nullOutputStream());
  }

  private static void sleep() {
    try {
      Thread.sleep(DRIP_MILLIS);
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  private static void closeQuietly(Socket socket) {
    try {
      if (socket != null) {
        socket.close();
      }
    } catch (IOException e) {
      // It is of no further use.
    }
  }

  /** Ends both connections. */
  void cut() throws IOException {
    listener.close();
    closeQuietly(source);
    closeQuietly(target);
  }

  @Override
  public void close() throws IOException {
    cut();
  }
}
