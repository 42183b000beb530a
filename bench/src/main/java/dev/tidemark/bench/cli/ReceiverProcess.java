package dev.tidemark.bench.cli;

import dev.tidemark.bench.Main;
import dev.tidemark.bench.hot.OtherJvm;
import dev.tidemark.ffm.Socket;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.HexFormat;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;

/**
 * A receiving process of this program's own, on a connection that no other process can get: it
 * connects to a Unix socket in a private directory, and each end asks the kernel which process and
 * user the other is.
 *
 * <p>It ends when this process does, unless it has taken over the guest: then it finishes its check
 * within its limits. Nothing stays in the file system: the process is started before there is
 * anything, with the path to come, and removes that in every case; so does this one.
 */
final class ReceiverProcess implements AutoCloseable {
  private static final long START_SECONDS = 600;
  private static final Pattern NAME = Pattern.compile("tidemark-[0-9a-f]{16}");
  private static final String SOCKET = "socket";

  /** Length of the longest path of a Unix socket, in bytes. */
  private static final int MAX_PATH = 107;

  /** Length at which its messages are cut, in characters. */
  private static final int MAX_COMPLAINT = 4096;

  private final Process process;
  private final StringBuffer complaint = new StringBuffer();
  private final Thread complaints;
  private final Path path;
  private Socket listener;
  private Socket socket;
  private boolean kept;

  private ReceiverProcess(Process process, Path path) {
    this.process = process;
    this.path = path;
    this.complaints =
        Thread.ofPlatform().daemon().name("receiver errors").start(this::readComplaints);
  }

  /**
   * Starts one, which then waits for its guest to be named.
   *
   * @throws IllegalStateException if it cannot be started
   */
  static ReceiverProcess start() {
    Path path = newPath();
    try {
      return new ReceiverProcess(
          OtherJvm.command(Main.class, "receive", "--parent", path.toString())
              .redirectOutput(ProcessBuilder.Redirect.DISCARD)
              .start(),
          path);
    } catch (IOException e) {
      throw new IllegalStateException("the receiving process did not start: " + e.getMessage(), e);
    }
  }

  /** A path that does not exist, that nobody guesses, and that is not too long for a socket. */
  private static Path newPath() {
    byte[] random = new byte[8];
    new SecureRandom().nextBytes(random);
    Path inside = Path.of("tidemark-" + HexFormat.of().formatHex(random), SOCKET);
    Path path = Path.of(System.getProperty("java.io.tmpdir")).toAbsolutePath().resolve(inside);
    return path.toString().getBytes(StandardCharsets.UTF_8).length <= MAX_PATH
        ? path
        : Path.of("/tmp").resolve(inside);
  }

  /** Whether a path is one of {@link #newPath}, which a receiver may remove. */
  static boolean isOurs(Path path) {
    return path.endsWith(SOCKET)
        && path.getParent() != null
        && NAME.matcher(String.valueOf(path.getParent().getFileName())).matches();
  }

  /**
   * Has it connect and make room while this process goes on.
   *
   * @param hello says for which guest
   * @throws IllegalStateException if it cannot
   */
  void greet(Wire.Hello hello) throws InterruptedException {
    try {
      Files.createDirectory(
          path.getParent(),
          PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
    } catch (IOException e) {
      throw new IllegalStateException("no way to the receiving process: " + Tidemark.text(e), e);
    }
    listener = Socket.listen(path);
    try {
      OutputStream input = process.getOutputStream();
      input.write(Wire.line(hello));
      input.flush();
    } catch (IOException e) {
      throw ended("its input is closed");
    }
  }

  /**
   * Waits until it is connected.
   *
   * @return the connection to it, closed with this
   * @throws IllegalStateException if it does not come so far
   */
  Socket connection() throws InterruptedException {
    try (Socket connections = listener) {
      socket = accept(connections);
    }
    return socket;
  }

  private Socket accept(Socket connections) throws InterruptedException {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(START_SECONDS);
    while (true) {
      while (!connections.awaitReadable(100)) {
        if (!process.isAlive()) {
          throw ended("it ended at once");
        }
        if (System.nanoTime() > deadline) {
          throw ended("it said nothing for " + START_SECONDS + " s");
        }
      }
      Socket found = connections.accept();
      Socket.Peer peer = found.peer();
      if (peer.pid() == process.pid() && peer.isThisUser()) {
        return found;
      }
      found.close();
    }
  }

  private IllegalStateException ended(String what) throws InterruptedException {
    String words = complaint();
    return new IllegalStateException(
        "the receiving process did not start: " + (words.isEmpty() ? what : words));
  }

  /** Takes the other process's last words, so that its side of a failure is told with ours. */
  private void readComplaints() {
    try (BufferedReader errors = process.errorReader(StandardCharsets.UTF_8)) {
      for (String line; (line = errors.readLine()) != null; ) {
        if (line.startsWith(Tidemark.PREFIX) && complaint.length() < MAX_COMPLAINT) {
          complaint
              .append(complaint.isEmpty() ? "" : "; ")
              .append(line.substring(Tidemark.PREFIX.length()));
        }
      }
    } catch (IOException e) {
      // It ended.
    }
  }

  /**
   * Waits a moment for what it has to say about a failure.
   *
   * @return one line that says who says it, or nothing
   */
  String complaint() throws InterruptedException {
    complaints.join(1000);
    return complaint.isEmpty() ? "" : Text.quoted("the receiver", complaint.toString());
  }

  /** CPU time that it has used, to within 10 ms; empty if it has ended. */
  Optional<Duration> cpu() {
    return process.toHandle().info().totalCpuDuration();
  }

  /** Says that the guest is there, or may be: the process is not killed any more. */
  void keep() {
    kept = true;
  }

  private void kill() throws InterruptedException {
    process.destroyForcibly().waitFor();
  }

  /** Waits a moment for it to end by itself, then ends it, unless it has a guest to check. */
  @Override
  public void close() {
    if (listener != null) {
      listener.close();
    }
    try {
      if (socket == null) {
        kill();
      } else {
        socket.close();
        if (!process.waitFor(5, TimeUnit.SECONDS) && !kept) {
          kill();
        }
      }
      Files.deleteIfExists(path);
      Files.deleteIfExists(path.getParent());
    } catch (IOException e) {
      // An empty folder stays.
    } catch (InterruptedException e) {
      if (!kept) {
        process.destroyForcibly();
      }
      Thread.currentThread().interrupt();
    }
  }
}
