package dev.tidemark.bench.qemu;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * One QEMU without devices that nobody asked for, and the QMP connection to it. It ends when it is
 * closed, and when this JVM does.
 *
 * <p>Threading: one thread at a time.
 */
public final class QemuProcess implements AutoCloseable {
  private static final long START_NANOS = TimeUnit.SECONDS.toNanos(60);
  private static final long POLL_MILLIS = 2;

  private final Path socket;
  private final Path log;
  private final Process process;
  private final Thread end = new Thread(this::kill, "end of QEMU");
  private final SocketChannel channel;
  private final Qmp qmp;

  /**
   * Starts one and waits until it answers.
   *
   * @param folder for its files, which are removed when it is closed
   * @param name of its files
   * @throws IllegalStateException if it ends at once, with its words
   */
  public QemuProcess(Path binary, Path folder, String name, List<String> arguments) {
    socket = folder.resolve(name + ".sock");
    log = folder.resolve(name + ".log");
    List<String> command = new ArrayList<>(List.of(binary.toString(), "-nodefaults"));
    command.addAll(List.of("-display", "none", "-qmp", "unix:" + socket + ",server=on,wait=off"));
    command.addAll(arguments);
    try {
      process =
          new ProcessBuilder(command)
              .redirectErrorStream(true)
              .redirectOutput(log.toFile())
              .start();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    Runtime.getRuntime().addShutdownHook(end);
    socket.toFile().deleteOnExit();
    log.toFile().deleteOnExit();
    try {
      channel = connect();
      qmp = new Qmp(channel);
    } catch (IOException e) {
      IllegalStateException failure = new IllegalStateException(binary + ": " + words(), e);
      kill();
      throw failure;
    }
  }

  private SocketChannel connect() throws IOException {
    long deadline = System.nanoTime() + START_NANOS;
    while (true) {
      SocketChannel found = SocketChannel.open(StandardProtocolFamily.UNIX);
      try {
        found.connect(UnixDomainSocketAddress.of(socket));
        return found;
      } catch (IOException e) {
        found.close();
        if (System.nanoTime() - deadline > 0 || !process.isAlive()) {
          throw new IOException("no QMP at " + socket, e);
        }
        pause();
      }
    }
  }

  private static void pause() {
    try {
      Thread.sleep(POLL_MILLIS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted", e);
    }
  }

  private String words() {
    try {
      String words = Files.readString(log).strip();
      return words.isEmpty() ? "it said nothing" : words;
    } catch (IOException e) {
      return "nobody knows what it said: " + e.getMessage();
    }
  }

  /**
   * Runs a QMP command.
   *
   * @return what it returns
   * @throws IllegalStateException if QEMU refuses it, or ends
   */
  public JsonElement execute(String command, Map<String, ?> arguments) {
    try {
      return qmp.execute(command, arguments);
    } catch (IOException e) {
      throw new IllegalStateException(command + ": " + e.getMessage() + "; " + words(), e);
    }
  }

  /** As {@link #execute(String, Map)}, without arguments. */
  public JsonElement execute(String command) {
    return execute(command, Map.of());
  }

  /**
   * Reads words of 64 bits from the guest's memory, while it runs or not.
   *
   * @param physical address
   */
  public long[] read(long physical, int words) {
    String line = "xp /" + words + "gx 0x" + Long.toHexString(physical);
    String dump = execute("human-monitor-command", Map.of("command-line", line)).getAsString();
    long[] read = MemoryDump.words(dump);
    if (read.length != words) {
      throw new IllegalStateException(line + ": " + dump.strip());
    }
    return read;
  }

  /** The port on the loopback that an incoming migration is awaited at. */
  public int incomingPort() {
    JsonObject first =
        execute("query-migrate")
            .getAsJsonObject()
            .getAsJsonArray("socket-address")
            .get(0)
            .getAsJsonObject();
    return first.get("port").getAsInt();
  }

  /**
   * Waits until an outgoing migration has completed here.
   *
   * @throws IllegalStateException if it fails, or takes longer
   */
  public MigrationInfo awaitMigrated(Duration limit) {
    long deadline = System.nanoTime() + limit.toNanos();
    while (true) {
      MigrationInfo info = MigrationInfo.of(execute("query-migrate").getAsJsonObject());
      if (info.isCompleted()) {
        return info;
      }
      if (info.isFailed()) {
        throw new IllegalStateException("QEMU's migration failed: " + info);
      }
      if (System.nanoTime() - deadline > 0) {
        throw new IllegalStateException("QEMU's migration did not end in " + limit + ": " + info);
      }
      pause();
    }
  }

  /** CPU time that it has used, to within 10 ms. */
  public Duration cpu() {
    return process
        .toHandle()
        .info()
        .totalCpuDuration()
        .orElseThrow(() -> new IllegalStateException("QEMU ended: " + words()));
  }

  private void kill() {
    process.destroyForcibly();
  }

  @Override
  public void close() {
    kill();
    try {
      channel.close();
      process.waitFor();
      Files.deleteIfExists(socket);
      Files.deleteIfExists(log);
      Runtime.getRuntime().removeShutdownHook(end);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } catch (IllegalStateException e) {
      // This JVM ends: the hook runs.
    }
  }
}
