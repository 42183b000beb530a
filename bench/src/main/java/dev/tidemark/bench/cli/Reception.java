package dev.tidemark.bench.cli;

import dev.tidemark.bench.guest.Joins;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Socket;
import java.time.Duration;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Accepts connections, and hands over the first that begins with a whole hello. Others (a port
 * probe, a health check, another protocol, one that says nothing) are closed and change nothing; a
 * second source is told that this receiver is busy.
 *
 * <p>A connection costs at most a thread, a line of 4 KiB and 5 seconds before it is known; 16 are
 * heard at a time, more wait to be accepted.
 */
final class Reception implements AutoCloseable {
  private static final int MAX_UNKNOWN = 16;
  private static final Duration HELLO_LIMIT = Duration.ofSeconds(5);
  private static final int MAX_COMPLAINTS = 16;
  private static final String BUSY = "busy with another guest";

  /**
   * A source that has said what it brings.
   *
   * @param socket its connection; belongs to who takes the arrival
   */
  record Arrival(Socket socket, Wire.Hello hello) {}

  private final Endpoint endpoint;
  private final Socket listener;
  private final Semaphore unknown = new Semaphore(MAX_UNKNOWN);
  private final AtomicBoolean taken = new AtomicBoolean();
  private final BlockingQueue<Arrival> arrivals = new ArrayBlockingQueue<>(1);
  private final AtomicInteger complaints = new AtomicInteger();
  private final Thread accepting;

  /** Removes a Unix socket's file where a signal ends the process. */
  private final Thread atExit;

  private volatile boolean closed;

  Reception(Endpoint endpoint) {
    this.endpoint = endpoint;
    this.listener = endpoint.listen();
    this.atExit = new Thread(listener::close, "close");
    Runtime.getRuntime().addShutdownHook(atExit);
    this.accepting = Thread.ofPlatform().daemon().name("accept").start(this::accept);
  }

  /** Where it listens. */
  String address() {
    return endpoint.text(listener);
  }

  /** Waits for a source; until {@link #again()}, others are told that this receiver is busy. */
  Arrival await() throws InterruptedException {
    return arrivals.take();
  }

  /** Waits for another source after all. */
  void again() {
    taken.set(false);
  }

  private void accept() {
    while (!closed) {
      try {
        unknown.acquire();
        Socket socket = listener.accept();
        Thread.ofPlatform().daemon().name("hello").start(() -> hear(socket));
      } catch (InterruptedException e) {
        return;
      } catch (LinuxException e) {
        unknown.release();
        if (!closed) {
          pause(e);
        }
      }
    }
  }

  /** Descriptors or memory are short: that passes, or the process is closed from outside. */
  private void pause(LinuxException failure) {
    complain(failure.getMessage());
    try {
      Thread.sleep(200);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private void hear(Socket socket) {
    boolean handedOver = false;
    try {
      endpoint.requireFriend(socket);
      Wire.Hello hello = Wire.receive(socket, Wire.Hello.class, HELLO_LIMIT);
      if (!hello.isWhole()) {
        throw new IllegalStateException("the other side is no tidemark: its hello is incomplete");
      }
      if (taken.compareAndSet(false, true)) {
        handedOver = arrivals.offer(new Arrival(socket, hello));
      } else {
        Wire.refuse(socket, BUSY);
      }
    } catch (RuntimeException e) {
      complain(e.getMessage());
    } finally {
      if (!handedOver) {
        socket.close();
      }
      unknown.release();
    }
  }

  /** Says why a connection was closed; not for ever, if somebody makes one after the other. */
  private void complain(String why) {
    int count = complaints.incrementAndGet();
    if (count <= MAX_COMPLAINTS) {
      Tidemark.complain(
          "still listening; "
              + why
              + (count == MAX_COMPLAINTS ? "; more of the kind will not be told" : ""));
    }
  }

  @Override
  public void close() {
    closed = true;
    listener.shutdown();
    accepting.interrupt();
    Joins.uninterruptibly(accepting);
    listener.close();
    try {
      Runtime.getRuntime().removeShutdownHook(atExit);
    } catch (IllegalStateException e) {
      // The process is ending.
    }
  }
}
