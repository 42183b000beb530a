package dev.tidemark.ffm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;
import static org.junit.jupiter.api.Assumptions.abort;

import dev.tidemark.ffm.iommufd.IommufdUapi;
import dev.tidemark.ffm.kvm.KvmConstants;
import dev.tidemark.ffm.kvm.KvmLayouts;
import dev.tidemark.ffm.kvm.KvmRequests;
import dev.tidemark.ffm.userfaultfd.PagemapUapi;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import dev.tidemark.ffm.vfio.VfioUapi;
import java.io.IOException;
import java.lang.foreign.GroupLayout;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.PaddingLayout;
import java.lang.foreign.SequenceLayout;
import java.lang.foreign.StructLayout;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Compares every public constant, layout and request number of the classes named in {@link #bound}
 * with what the C compiler says from the headers of Linux 6.12. The names are the kernel's, so
 * nothing is written down twice: a layout's name is the structure's, its members' names are the
 * fields'. What is pinned without a compiler stands beside the tests of each package.
 *
 * <p>Without the headers or a compiler they count as skipped, unless the environment says {@code
 * TIDEMARK_REQUIRE_UAPI=true}.
 */
class UapiTest {
  /**
   * A class of this module and where C has the same.
   *
   * @param type its public static finals: int, long, {@link GroupLayout}, {@link Ioctl.Request}
   * @param header the C header, as in {@code #include <header>}
   */
  record Bound(Class<?> type, String header) {
    @Override
    public String toString() {
      return type.getSimpleName() + " and " + header;
    }
  }

  /** One line per class. */
  static Stream<Bound> bound() {
    return Stream.of(
        new Bound(Errno.class, "errno.h"),
        new Bound(Fd.class, "fcntl.h"),
        new Bound(UserfaultfdUapi.class, "linux/userfaultfd.h"),
        new Bound(PagemapUapi.class, "linux/fs.h"),
        new Bound(KvmConstants.class, "linux/kvm.h"),
        new Bound(KvmLayouts.class, "linux/kvm.h"),
        new Bound(KvmRequests.class, "linux/kvm.h"),
        new Bound(IommufdUapi.class, "linux/iommufd.h"),
        new Bound(VfioUapi.class, "linux/vfio.h"));
  }

  @ParameterizedTest
  @MethodSource("bound")
  void agreesWithTheCompiler(Bound bound, @TempDir Path folder) throws Exception {
    Path include = headers();
    Map<String, Long> java = expressions(bound.type);
    assertTrue(java.size() > 0, () -> "nothing to compare in " + bound);
    String program =
        Stream.of(
                Stream.of(
                    "#define _GNU_SOURCE",
                    "#include <" + bound.header + ">",
                    "#include <stddef.h>",
                    "#include <stdio.h>",
                    "#include <sys/ioctl.h>",
                    "int main(void) {"),
                java.keySet().stream()
                    .map(e -> "  printf(\"%s=%lld\\n\", \"" + e + "\", (long long)(" + e + "));"),
                Stream.of("  return 0;", "}"))
            .flatMap(lines -> lines)
            .collect(Collectors.joining("\n", "", "\n"));
    Path source = Files.writeString(folder.resolve("uapi.c"), program);
    Path binary = folder.resolve("uapi");
    run(List.of("cc", "-isystem", "" + include, "-o", "" + binary, "" + source), folder);
    List<String> differences = new ArrayList<>();
    for (String line : run(List.of("" + binary), folder)) {
      int split = line.lastIndexOf('=');
      String expression = line.substring(0, split);
      long c = Long.parseLong(line.substring(split + 1));
      long ours = java.remove(expression);
      // A 32-bit number may be signed here and unsigned there.
      if (c != ours && !((int) ours == ours && (int) c == ours && c >>> 32 == 0)) {
        differences.add(expression + ": C says " + c + ", Java " + ours);
      }
    }
    assertEquals(List.of(), differences);
    assertEquals(Map.of(), java, "not answered by the C program");
  }

  @Test
  void everyErrorOfTheKernelHasItsName() throws Exception {
    Pattern definition = Pattern.compile("#define\\s+(E\\w+)\\s+(\\d+)\\b.*");
    Map<Integer, String> expected = new TreeMap<>();
    Map<Integer, String> found = new TreeMap<>();
    for (String file : List.of("errno-base.h", "errno.h")) {
      for (String line : Files.readAllLines(headers().resolve("asm-generic").resolve(file))) {
        Matcher m = definition.matcher(line);
        if (m.matches()) {
          int errno = Integer.parseInt(m.group(2));
          expected.put(errno, m.group(1));
          found.put(errno, Errno.name(errno));
        }
      }
    }
    assertTrue(expected.size() > 130, () -> "only " + expected);
    assertEquals(expected, found);
  }

  /** Where .ci/kernel-headers has put them, or the end of the test. */
  private static Path headers() throws IOException {
    String cache = System.getenv("XDG_CACHE_HOME");
    Path root =
        cache == null || cache.isEmpty()
            ? Path.of(System.getProperty("user.home"), ".cache")
            : Path.of(cache);
    Path folder = root.resolve("tidemark");
    if (Files.isDirectory(folder)) {
      try (var entries = Files.newDirectoryStream(folder, "kernel-headers-6.12.*")) {
        for (Path entry : entries) {
          return entry.resolve("include");
        }
      }
    }
    return missing("no kernel headers in " + folder + ": run .ci/kernel-headers");
  }

  private static Path missing(String reason) {
    return "true".equals(System.getenv("TIDEMARK_REQUIRE_UAPI")) ? fail(reason) : abort(reason);
  }

  private static List<String> run(List<String> command, Path folder) throws Exception {
    Path output = folder.resolve("output");
    Process process;
    try {
      process =
          new ProcessBuilder(command)
              .redirectErrorStream(true)
              .redirectOutput(output.toFile())
              .start();
    } catch (IOException e) {
      missing("no C compiler: " + e.getMessage());
      throw e;
    }
    int status = process.waitFor();
    List<String> lines = Files.readAllLines(output);
    assertEquals(0, status, () -> command.getFirst() + ":\n" + String.join("\n", lines));
    return lines;
  }

  private static Stream<Field> finals(Class<?> type) {
    return Arrays.stream(type.getDeclaredFields())
        .filter(field -> Modifier.isPublic(field.getModifiers()))
        .filter(field -> Modifier.isStatic(field.getModifiers()));
  }

  private static Object value(Field field) {
    try {
      return field.get(null);
    } catch (IllegalAccessException e) {
      throw new AssertionError(e);
    }
  }

  /** C expressions and the values that this module has for them. */
  private static Map<String, Long> expressions(Class<?> type) {
    Map<String, Long> expressions = new LinkedHashMap<>();
    finals(type)
        .forEach(
            field -> {
              switch (value(field)) {
                case Integer number -> expressions.put(field.getName(), (long) number);
                case Long number -> expressions.put(field.getName(), number);
                case Ioctl.Request request -> {
                  assertEquals(field.getName(), request.name());
                  expressions.put(request.name(), (long) request.code());
                }
                case GroupLayout layout -> {
                  String struct = "struct " + layout.name().orElseThrow();
                  expressions.put("sizeof(" + struct + ")", layout.byteSize());
                  members(expressions, struct, "", layout, 0);
                }
                default -> fail(field + ": do not know how to compare it");
              }
            });
    return expressions;
  }

  private static void members(
      Map<String, Long> expressions, String struct, String path, GroupLayout group, long offset) {
    for (MemoryLayout member : group.memberLayouts()) {
      if (!(member instanceof PaddingLayout)) {
        member(expressions, struct, path, member, offset);
      }
      if (group instanceof StructLayout) {
        offset += member.byteSize();
      }
    }
  }

  private static void member(
      Map<String, Long> expressions, String struct, String path, MemoryLayout member, long offset) {
    String inner = path;
    if (member.name().isPresent()) {
      String field = path + member.name().get();
      expressions.put("offsetof(" + struct + ", " + field + ")", offset);
      if (member.byteSize() > 0) {
        expressions.put("sizeof(((" + struct + " *)0)->" + field + ")", member.byteSize());
      }
      inner = field + ".";
    }
    if (member instanceof GroupLayout group) {
      members(expressions, struct, inner, group, offset);
    } else if (member instanceof SequenceLayout sequence
        && sequence.elementLayout() instanceof GroupLayout group
        && sequence.elementCount() > 0) {
      members(expressions, struct, inner.substring(0, inner.length() - 1) + "[0].", group, offset);
    }
  }
}
