package dev.tidemark.bench.hot;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * QEMU to QEMU with the memory of {@link TransferPath}: one stream, no limit of bandwidth at either
 * end, no guest code running. The source's memory is a file in {@code /dev/shm}, filled by us; the
 * destination's is QEMU's own, allocated before, as Tidemark's is.
 */
public final class QemuPair implements AutoCloseable {
  private static final Path BINARY = Path.of("/usr/bin/qemu-system-x86_64");
  private static final Path SHM = Path.of("/dev/shm");
  private static final long PATIENCE = TimeUnit.SECONDS.toNanos(60);

  private final Path folder;
  private final Path ram;
  private Machine from;
  private Machine to;
  private int port;

  /** Makes the memory. */
  public QemuPair() {
    try {
      folder = Files.createTempDirectory("tidemark-qemu");
      ram = Files.createTempFile(SHM, "tidemark", ".ram");
      try (FileChannel file =
              FileChannel.open(ram, StandardOpenOption.READ, StandardOpenOption.WRITE);
          Arena arena = Arena.ofConfined()) {
        MemorySegment memory =
            file.map(FileChannel.MapMode.READ_WRITE, 0, TransferPath.BYTES, arena);
        TransferPath.fill(memory);
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Why it cannot be measured here; empty if it can. */
  public static Optional<String> missing() {
    return Files.isExecutable(BINARY)
        ? Optional.empty()
        : Optional.of(BINARY + " is missing: install qemu-system-x86");
  }

  /** Starts two new QEMUs. */
  public void prepare() {
    stop();
    String size = (TransferPath.BYTES >> 20) + "M";
    String object = "memory-backend-file,id=ram,size=" + size + ",share=on,mem-path=" + ram;
    from = new Machine(folder, "from", "-object", object, "-machine", "memory-backend=ram");
    String own = "memory-backend-ram,id=ram,prealloc=on,size=" + size;
    to =
        new Machine(
            folder,
            "to",
            "-object",
            own,
            "-machine",
            "memory-backend=ram",
            "-incoming",
            "tcp:127.0.0.1:0");
    for (Machine machine : List.of(from, to)) {
      // 0 is no limit.
      machine.execute("migrate-set-parameters", "{\"max-bandwidth\": 0}");
    }
    Matcher found = Pattern.compile("\"port\": \"(\\d+)\"").matcher(to.execute("query-migrate"));
    if (!found.find()) {
      throw new IllegalStateException("QEMU does not say where it listens");
    }
    port = Integer.parseInt(found.group(1));
  }

  /** Migrates, to the end at the source. */
  public long migrate() {
    from.execute("migrate", "{\"uri\": \"tcp:127.0.0.1:" + port + "\"}");
    long deadline = System.nanoTime() + PATIENCE;
    while (System.nanoTime() - deadline < 0) {
      String answer = from.execute("query-migrate");
      if (answer.contains("\"status\": \"completed\"")) {
        return 0;
      }
      if (answer.contains("\"status\": \"failed\"")) {
        throw new IllegalStateException("QEMU's migration failed: " + answer);
      }
      try {
        Thread.sleep(2);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new IllegalStateException("interrupted", e);
      }
    }
    throw new IllegalStateException("QEMU's migration did not end");
  }

  private void stop() {
    if (from != null) {
      from.close();
      from = null;
    }
    if (to != null) {
      to.close();
      to = null;
    }
  }

  @Override
  public void close() {
    stop();
    try {
      Files.deleteIfExists(ram);
      Files.deleteIfExists(folder);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** One QEMU, stopped, and its QMP connection. */
  private static final class Machine implements AutoCloseable {
    private final Path socket;
    private final Process process;
    private final SocketChannel qmp;
    private final ByteBuffer received = ByteBuffer.allocate(1 << 16).limit(0);

    Machine(Path folder, String name, String... arguments) {
      socket = folder.resolve(name + ".sock");
      List<String> command = new ArrayList<>(List.of(BINARY.toString(), "-S"));
      command.addAll(List.of("-accel", "kvm", "-accel", "tcg"));
      command.addAll(List.of("-m", (TransferPath.BYTES >> 20) + "M", "-nodefaults"));
      command.addAll(List.of("-display", "none", "-qmp", "unix:" + socket + ",server=on,wait=off"));
      command.addAll(List.of(arguments));
      try {
        process =
            new ProcessBuilder(command)
                .redirectErrorStream(true)
                .redirectOutput(ProcessBuilder.Redirect.DISCARD)
                .start();
        qmp = connect();
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
      // The greeting, after whatever event comes first.
      while (!line().startsWith("{\"QMP\"")) {
        Thread.onSpinWait();
      }
      execute("qmp_capabilities");
    }

    private SocketChannel connect() throws IOException {
      long deadline = System.nanoTime() + PATIENCE;
      while (true) {
        SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX);
        try {
          channel.connect(UnixDomainSocketAddress.of(socket));
          return channel;
        } catch (IOException e) {
          channel.close();
          if (System.nanoTime() - deadline > 0 || !process.isAlive()) {
            process.destroyForcibly();
            throw new IOException("no QMP at " + socket, e);
          }
          Thread.onSpinWait();
        }
      }
    }

    private String line() {
      StringBuilder line = new StringBuilder();
      try {
        while (true) {
          if (!received.hasRemaining()) {
            received.clear();
            int length = qmp.read(received);
            received.flip();
            if (length < 0) {
              throw new IOException("QEMU ended");
            }
          }
          char next = (char) (received.get() & 255);
          if (next == '\n') {
            return line.toString();
          }
          line.append(next);
        }
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }

    String execute(String command) {
      return execute(command, "{}");
    }

    String execute(String command, String arguments) {
      String request = "{\"execute\": \"" + command + "\", \"arguments\": " + arguments + "}\n";
      ByteBuffer bytes = ByteBuffer.wrap(request.getBytes(StandardCharsets.UTF_8));
      try {
        while (bytes.hasRemaining()) {
          qmp.write(bytes);
        }
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
      while (true) {
        String answer = line();
        if (answer.startsWith("{\"error\"")) {
          throw new IllegalStateException(request.strip() + ": " + answer);
        }
        if (answer.startsWith("{\"return\"")) {
          return answer;
        }
      }
    }

    @Override
    public void close() {
      try {
        qmp.close();
        process.destroyForcibly().waitFor();
        Files.deleteIfExists(socket);
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }
  }
}
