package dev.tidemark.bench.qemu;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Comparator;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * A QEMU for x86-64 on this machine.
 *
 * @param path what starts it
 * @param version what it says of itself, such as {@code 11.1.3}
 */
public record QemuBinary(Path path, String version) {
  private static final Path INSTALLED = Path.of("/usr/bin/qemu-system-x86_64");
  private static final Pattern VERSION = Pattern.compile("version (\\d+(\\.\\d+)+)");

  /**
   * Looks for the newest: among those that {@code .ci/qemus} has unpacked, or else the machine's
   * own.
   *
   * @return empty if there is none
   */
  public static Optional<QemuBinary> newest() {
    return newest(cache()).or(() -> installed().map(QemuBinary::of));
  }

  private static Path cache() {
    String cache = System.getenv("XDG_CACHE_HOME");
    Path folder =
        cache == null || cache.isEmpty()
            ? Path.of(System.getProperty("user.home"), ".cache")
            : Path.of(cache);
    return folder.resolve("tidemark/qemus");
  }

  /** The newest that is in a folder of this folder. */
  static Optional<QemuBinary> newest(Path unpacked) {
    if (!Files.isDirectory(unpacked)) {
      return Optional.empty();
    }
    try (Stream<Path> suites = Files.list(unpacked)) {
      return suites
          .map(suite -> suite.resolve("qemu-system-x86_64"))
          .filter(Files::isExecutable)
          .map(QemuBinary::of)
          .max(Comparator.comparing(QemuBinary::numbers, Arrays::compare));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** The machine's own. */
  public static Optional<Path> installed() {
    return Optional.of(INSTALLED).filter(Files::isExecutable);
  }

  /** Why there is none, for people. */
  public static String missing() {
    return "no QEMU: run .ci/qemus, or install qemu-system-x86 for " + INSTALLED;
  }

  /**
   * Asks a QEMU for its version.
   *
   * @throws IllegalStateException if it is none
   */
  public static QemuBinary of(Path path) {
    String says;
    try {
      Process process =
          new ProcessBuilder(path.toString(), "--version").redirectErrorStream(true).start();
      process.getOutputStream().close();
      says = new String(process.getInputStream().readAllBytes()).strip();
    } catch (IOException e) {
      throw new IllegalStateException(path + " does not start: " + e.getMessage(), e);
    }
    Matcher matcher = VERSION.matcher(says);
    if (!matcher.find()) {
      throw new IllegalStateException(path + " --version names no version, but says: " + says);
    }
    return new QemuBinary(path, matcher.group(1));
  }

  private int[] numbers() {
    return Stream.of(version.split("\\.")).mapToInt(Integer::parseInt).toArray();
  }
}
