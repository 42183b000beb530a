package dev.tidemark.bench.cli;

import com.google.gson.JsonObject;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** A receiving process of this program's own, with the same Java and the same flags. */
final class ReceiverProcess implements AutoCloseable {
  private final Process process;
  private final InetSocketAddress address;
  private final Thread drain;
  private final Thread complaints;
  private final StringBuffer complaint;

  private ReceiverProcess(Process process, InetSocketAddress address, Thread drain) {
    this.process = process;
    this.address = address;
    this.drain = drain;
    this.complaint = new StringBuffer();
    this.complaints =
        Thread.ofPlatform().daemon().name("receiver errors").start(this::readComplaints);
  }

  /**
   * Starts one and waits until it listens.
   *
   * @throws IllegalStateException if it does not come so far
   */
  static ReceiverProcess start() {
    List<String> command = new ArrayList<>();
    command.add(ProcessHandle.current().info().command().orElse("java"));
    command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
    command.add("-cp");
    command.add(System.getProperty("java.class.path"));
    command.add("dev.tidemark.bench.Main");
    command.addAll(List.of("receive", "--listen", "tcp:127.0.0.1:0", "--json"));
    Process process = null;
    try {
      process = new ProcessBuilder(command).start();
      process.getOutputStream().close();
      var lines =
          new BufferedReader(
              new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
      String line = lines.readLine();
      if (line == null) {
        throw new IllegalStateException("the receiving process did not start");
      }
      JsonObject first = Json.object(line);
      InetSocketAddress address = new Units.Tcp().convert(first.get("listening").getAsString());
      Thread drain = Thread.ofPlatform().daemon().name("receiver output").start(() -> drain(lines));
      return new ReceiverProcess(process, address, drain);
    } catch (IOException e) {
      throw new IllegalStateException("the receiving process did not start: " + e.getMessage(), e);
    } catch (RuntimeException e) {
      if (process != null) {
        process.destroyForcibly();
      }
      throw e;
    }
  }

  /** Keeps the other process from waiting for a reader; its report comes over the connection. */
  private static void drain(BufferedReader lines) {
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
    try (BufferedReader lines = process.errorReader(StandardCharsets.UTF_8)) {
      for (String line; (line = lines.readLine()) != null; ) {
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
      drain.join();
    } catch (InterruptedException e) {
      process.destroyForcibly();
      Thread.currentThread().interrupt();
    }
  }
}
