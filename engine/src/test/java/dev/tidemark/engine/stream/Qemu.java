package dev.tidemark.engine.stream;

import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** A QEMU without a machine, and the QMP connection to it. */
public final class Qemu implements AutoCloseable {
  private static final Path BINARY = Path.of("/usr/bin/qemu-system-x86_64");
  private static final long PATIENCE = TimeUnit.SECONDS.toNanos(30);

  private final Process process;
  private final Path log;
  private final SocketChannel qmp;
  private final ByteBuffer received = ByteBuffer.allocate(64 << 10).limit(0);

  public static void assumeInstalled() {
    assumeTrue(
        Files.isExecutable(BINARY), BINARY + " is missing: install the package qemu-system-x86");
  }

  public Qemu(Path folder, String... arguments) throws Exception {
    Path socket = folder.resolve("qmp.sock");
    log = folder.resolve("qemu.log");
    List<String> command =
        new ArrayList<>(
            List.of(
                BINARY.toString(),
                "-accel",
                "tcg",
                "-m",
                "64M",
                "-nodefaults",
                "-display",
                "none",
                "-S",
                "-qmp",
                "unix:" + socket + ",server=on,wait=off"));
    command.addAll(List.of(arguments));
    process =
        new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(log.toFile()).start();
    try {
      qmp = connect(socket);
      // An event may come before the greeting, when the connection is made while QEMU starts.
      String first;
      do {
        first = line();
      } while (!first.startsWith("{\"QMP\""));
      execute("qmp_capabilities");
    } catch (Exception | Error e) {
      process.destroyForcibly().waitFor();
      throw e;
    }
  }

  private SocketChannel connect(Path socket) throws Exception {
    long deadline = System.nanoTime() + PATIENCE;
    while (true) {
      SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX);
      try {
        channel.connect(UnixDomainSocketAddress.of(socket));
        return channel;
      } catch (IOException e) {
        channel.close();
        if (System.nanoTime() - deadline > 0 || !process.isAlive()) {
          throw new IOException("no QMP: " + Files.readString(log), e);
        }
        Thread.sleep(10);
      }
    }
  }

  private String line() throws IOException {
    ByteArrayOutputStream line = new ByteArrayOutputStream();
    while (true) {
      if (!received.hasRemaining()) {
        received.clear();
        int length = qmp.read(received);
        received.flip();
        if (length < 0) {
          throw new IOException("QEMU ended: " + Files.readString(log));
        }
      }
      byte next = received.get();
      if (next == '\n') {
        return line.toString(StandardCharsets.UTF_8);
      }
      line.write(next);
    }
  }

  /** Runs a command without arguments; the answer's line. */
  String execute(String command) throws IOException {
    return send("{\"execute\": \"" + command + "\"}\n");
  }

  /** Runs a command; the answer's line. */
  public String execute(String command, String arguments) throws IOException {
    return send("{\"execute\": \"" + command + "\", \"arguments\": " + arguments + "}\n");
  }

  private String send(String request) throws IOException {
    ByteBuffer bytes = ByteBuffer.wrap(request.getBytes(StandardCharsets.UTF_8));
    while (bytes.hasRemaining()) {
      qmp.write(bytes);
    }
    while (true) {
      String answer = line();
      if (answer.startsWith("{\"error\"")) {
        throw new IOException(request.strip() + ": " + answer);
      }
      if (answer.startsWith("{\"return\"")) {
        return answer;
      }
    }
  }

  /** The string that a name stands before, in flat JSON. */
  static String string(String json, String name) {
    Matcher matcher = Pattern.compile("\"" + name + "\": \"([^\"]*)\"").matcher(json);
    assertTrue(matcher.find(), name + " in " + json);
    return matcher.group(1);
  }

  /** The port that an incoming migration is awaited at. */
  public int incomingPort() throws IOException {
    return Integer.parseInt(string(execute("query-migrate"), "port"));
  }

  /** Waits until the migration is over, well or not; its status. */
  public String migrationStatus() throws Exception {
    long deadline = System.nanoTime() + PATIENCE;
    while (System.nanoTime() - deadline < 0) {
      String answer = execute("query-migrate");
      if (answer.contains("\"status\": \"completed\"") || answer.contains("\"failed\"")) {
        return string(answer, "status");
      }
      Thread.sleep(10);
    }
    throw new IOException("migration does not end: " + execute("query-migrate"));
  }

  /** What QEMU wrote to stdout and stderr. */
  public String output() throws IOException {
    return Files.readString(log);
  }

  @Override
  public void close() throws IOException {
    qmp.close();
    process.destroyForcibly().onExit().join();
  }
}
