package dev.tidemark.bench.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.stream.Stream;

/**
 * Memory of the host that this process may use: what the kernel has, and what the control groups
 * leave it that the process is in, of version 1 and 2.
 */
final class HostMemory {
  private static final HostMemory HERE = new HostMemory(Path.of("/"));

  /** Names of one version's files. */
  private enum Version {
    V2("memory.max", "memory.current", "inactive_file "),
    V1("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ");

    private final String limit;
    private final String usage;
    private final String reclaimable;

    Version(String limit, String usage, String reclaimable) {
      this.limit = limit;
      this.usage = usage;
      this.reclaimable = reclaimable;
    }
  }

  /**
   * A hierarchy of control groups that limits memory.
   *
   * @param folder this process's group
   * @param top the highest group that is visible here
   */
  private record Hierarchy(Version version, Path folder, Path top) {}

  private final Path root;

  /** Looks at the {@code proc} and the groups below a folder: those of this host are below /. */
  HostMemory(Path root) {
    this.root = root;
  }

  /**
   * Refuses a guest that would not fit, before the kernel has to end somebody.
   *
   * @throws IllegalStateException if there is less memory than that
   */
  static void require(long bytes) {
    long available = HERE.available();
    if (bytes > available) {
      throw new IllegalStateException(
          String.format(
              Locale.ROOT,
              "%s of RAM are not to be had: %s are available on this host",
              Units.size(bytes),
              Units.size(available)));
    }
  }

  /** Most that any guest here can have, in bytes. */
  static long total() {
    return HERE.limit();
  }

  /** Bytes that can be taken now without anything being ended for it. */
  long available() {
    long bytes = meminfo("MemAvailable:");
    for (Hierarchy hierarchy : hierarchies()) {
      for (Path group : path(hierarchy)) {
        long limit = number(group.resolve(hierarchy.version.limit), Long.MAX_VALUE);
        if (limit < Long.MAX_VALUE) {
          long used = number(group.resolve(hierarchy.version.usage), 0);
          long left = limit - Math.max(0, used - reclaimable(hierarchy.version, group));
          bytes = Math.min(bytes, Math.max(0, left));
        }
      }
    }
    return bytes;
  }

  /** Bytes of memory, or the lowest limit below that. */
  long limit() {
    long bytes = meminfo("MemTotal:");
    for (Hierarchy hierarchy : hierarchies()) {
      for (Path group : path(hierarchy)) {
        bytes = Math.min(bytes, number(group.resolve(hierarchy.version.limit), Long.MAX_VALUE));
      }
    }
    return bytes;
  }

  /** The group and all those around it: each of them limits. */
  private static List<Path> path(Hierarchy hierarchy) {
    return Stream.iterate(
            hierarchy.folder, f -> f != null && f.startsWith(hierarchy.top), Path::getParent)
        .toList();
  }

  private List<Hierarchy> hierarchies() {
    List<String> groups = lines(root.resolve("proc/self/cgroup"));
    return lines(root.resolve("proc/self/mountinfo")).stream()
        .map(mount -> hierarchy(mount.split(" "), groups))
        .flatMap(Optional::stream)
        .toList();
  }

  /**
   * Reads a line of mountinfo: {@code ID PARENT DEVICE ROOT MOUNTPOINT OPTIONS [TAGS...] - TYPE
   * SOURCE SUPEROPTIONS}.
   */
  private Optional<Hierarchy> hierarchy(String[] mount, List<String> groups) {
    int dash = Arrays.asList(mount).indexOf("-");
    if (dash < 6 || mount.length < dash + 4) {
      return Optional.empty();
    }
    Version version;
    if (mount[dash + 1].equals("cgroup2")) {
      version = Version.V2;
    } else if (mount[dash + 1].equals("cgroup")
        && Arrays.asList(mount[dash + 3].split(",")).contains("memory")) {
      version = Version.V1;
    } else {
      return Optional.empty();
    }
    return groups.stream()
        .map(group -> group.split(":", 3))
        .filter(
            group ->
                group.length == 3
                    && (version == Version.V2
                        ? group[0].equals("0")
                        : Arrays.asList(group[1].split(",")).contains("memory")))
        .findFirst()
        .flatMap(group -> locate(version, mount[3], mount[4], group[2]));
  }

  private Optional<Hierarchy> locate(
      Version version, String mountRoot, String mountPoint, String group) {
    try {
      Path top = root.resolve(Path.of("/").relativize(Path.of(mountPoint)));
      Path whole = Path.of(mountRoot);
      Path own = Path.of(group).normalize();
      // A container may see its own group as the mount's root, or be told a path of outside.
      Path folder =
          own.startsWith(whole) ? top.resolve(whole.relativize(own).toString()).normalize() : top;
      return Optional.of(
          new Hierarchy(version, Files.isDirectory(folder) ? folder : top, top.normalize()));
    } catch (IllegalArgumentException e) {
      return Optional.empty();
    }
  }

  /** Bytes of a group's page cache that the kernel drops first: they count as usage. */
  private static long reclaimable(Version version, Path group) {
    return lines(group.resolve("memory.stat")).stream()
        .filter(line -> line.startsWith(version.reclaimable))
        .mapToLong(line -> parse(line.substring(version.reclaimable.length()), 0))
        .findFirst()
        .orElse(0);
  }

  /** The number in a file; the other for {@code max}, and for a file without any. */
  private static long number(Path file, long otherwise) {
    List<String> lines = lines(file);
    return lines.isEmpty() ? otherwise : parse(lines.getFirst(), otherwise);
  }

  private static long parse(String text, long otherwise) {
    try {
      return Long.parseLong(text.strip());
    } catch (NumberFormatException e) {
      return otherwise;
    }
  }

  private long meminfo(String field) {
    return lines(root.resolve("proc/meminfo")).stream()
        .filter(line -> line.startsWith(field))
        .mapToLong(line -> parse(line.replaceAll("\\D", ""), Long.MAX_VALUE >> 10) << 10)
        .findFirst()
        .orElse(Long.MAX_VALUE);
  }

  private static List<String> lines(Path file) {
    try {
      return Files.readAllLines(file);
    } catch (IOException e) {
      // As if it said nothing.
      return List.of();
    }
  }
}
