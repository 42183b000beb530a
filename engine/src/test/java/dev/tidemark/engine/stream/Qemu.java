package dev.tidemark.engine.stream;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.abort;

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

/** A QEMU whose guest does not run yet, and the QMP connection to it. */
public final class Qemu implements AutoCloseable {
  /** For what takes moments on an idle machine. */
  static final long PATIENCE = TimeUnit.SECONDS.toNanos(90);

  /**
   * One of the QEMUs that the tests run against: the machine's own, and those that .ci/qemus
   * unpacks. The tests of one that is not there count as skipped, unless the environment says
   * {@code TIDEMARK_REQUIRE_QEMUS=true}.
   *
   * @param from the suite of Debian that it is from, or "this machine"
   * @param path where it should be
   * @param version what it says of itself, empty if it is not there
   */
  public record Binary(String from, Path path, String version) {
    private static final boolean REQUIRED = "true".equals(System.getenv("TIDEMARK_REQUIRE_QEMUS"));
    private static final List<Binary> ALL = all();

    /** All of them, whether they are there or not. */
    public static List<Binary> values() {
      return ALL;
    }

    private static List<Binary> all() {
      Path qemus = Path.of(output(System.getProperty("tidemark.root") + "/.ci/qemus", "--where"));
      return List.of(
          of("this machine", Path.of("/usr/bin/qemu-system-x86_64")),
          of("trixie", qemus.resolve("trixie/qemu-system-x86_64")),
          of("trixie-backports", qemus.resolve("trixie-backports/qemu-system-x86_64")));
    }

    private static Binary of(String from, Path path) {
      if (!Files.isExecutable(path)) {
        return new Binary(from, path, "");
      }
      String says = output(path.toString(), "--version");
      Matcher matcher = Pattern.compile("version (\\d+(\\.\\d+)+)").matcher(says);
      assertTrue(matcher.find(), path + " --version: " + says);
      return new Binary(from, path, matcher.group(1));
    }

    private static String output(String... command) {
      try {
        Process process = new ProcessBuilder(command).start();
        process.getOutputStream().close();
        String output = new String(process.getInputStream().readAllBytes());
        assertEquals(0, process.waitFor(), String.join(" ", command));
        return output.strip();
      } catch (IOException | InterruptedException e) {
        throw new AssertionError(String.join(" ", command), e);
      }
    }

    /** Ends the test where it is not there: as a failure where it must be. */
    public void assumeThere() {
      if (version.isEmpty()) {
        String reason =
            "no QEMU of "
                + from
                + " in "
                + path
                + ": run .ci/qemus, or install qemu-system-x86 for this machine's";
        assertFalse(REQUIRED, reason);
        abort(reason);
      }
    }

    /** Whether it is as new as that. */
    boolean isAtLeast(int major) {
      return Integer.parseInt(version.substring(0, version.indexOf('.'))) >= major;
    }

    @Override
    public String toString() {
      return "QEMU " + version + " of " + from;
    }
  }

  private final Process process;
  private final Path log;
  private final SocketChannel qmp;
  private final ByteBuffer received = ByteBuffer.allocate(64 << 10).limit(0);

  public Qemu(Binary binary, Path folder, String... arguments) throws Exception {
    Path socket = folder.resolve("qmp.sock");
    log = folder.resolve("qemu.log");
    List<String> command =
        new ArrayList<>(
            List.of(
                binary.path().toString(),
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
