package dev.tidemark.bench.cli;

import dev.tidemark.bench.Main;
import dev.tidemark.bench.hot.OtherJvm;
import java.io.BufferedReader;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;

/** A receiving process of this program's own, with the same Java and the same flags. */
final class ReceiverProcess implements AutoCloseable {
  private final Process process;
  private final BufferedReader lines;
  private final StringBuffer complaint = new StringBuffer();
  private final Thread complaints;
  private InetSocketAddress address;

  private ReceiverProcess(Process process) {
    this.process = process;
    this.lines = process.inputReader(StandardCharsets.UTF_8);
    this.complaints =
        Thread.ofPlatform().daemon().name("receiver errors").start(this::readComplaints);
  }

  /**
   * Starts one and waits until it listens.
   *
   * @throws IllegalStateException if it does not come so far
   */
  static ReceiverProcess start() throws InterruptedException {
    ProcessBuilder command =
        OtherJvm.command(Main.class, "receive", "--listen", "tcp:127.0.0.1:0", "--json");
    ReceiverProcess receiver;
    try {
      receiver = new ReceiverProcess(command.start());
    } catch (IOException e) {
      throw new IllegalStateException("the receiving process did not start: " + e.getMessage(), e);
    }
    try {
      receiver.awaitListening();
      return receiver;
    } catch (RuntimeException e) {
      receiver.process.destroyForcibly().waitFor();
      throw e;
    }
  }

  private void awaitListening() throws InterruptedException {
    String line;
    try {
      process.getOutputStream().close();
      line = lines.readLine();
    } catch (IOException e) {
      line = null;
    }
    if (line == null) {
      throw new IllegalStateException("the receiving process did not start: " + complaint());
    }
    address = new Units.Tcp().convert(Json.object(line).get("listening").getAsString());
    Thread.ofPlatform().daemon().name("receiver output").start(this::drain);
  }

  /** Keeps the other process from waiting for a reader; its report comes over the connection. */
  private void drain() {
    try {
      while (lines.readLine() != null) {
        // Nobody reads these.
      }
    } catch (IOException e) {
      // It ended.
    }
  }

  /** Takes the other process's last word, so that its side of a failure is told with ours. */
  private void readComplaints() {
    try (BufferedReader errors = process.errorReader(StandardCharsets.UTF_8)) {
      for (String line; (line = errors.readLine()) != null; ) {
        if (line.startsWith(Tidemark.PREFIX)) {
          complaint.append(line.substring(Tidemark.PREFIX.length()));
        }
      }
    } catch (IOException e) {
      // It ended.
    }
  }

  /**
   * Waits a moment for what it has to say about a failure.
   *
   * @return one line, or nothing
   */
  String complaint() throws InterruptedException {
    complaints.join(1000);
    return complaint.toString();
  }

  /** Where it listens. */
  InetSocketAddress address() {
    return address;
  }

  /** Waits a moment for it to end by itself, then ends it. */
  @Override
  public void close() {
    try {
      if (!process.waitFor(5, TimeUnit.SECONDS)) {
        process.destroyForcibly().waitFor();
      }
    } catch (InterruptedException e) {
      process.destroyForcibly();
      Thread.currentThread().interrupt();
    }
  }
}
