package dev.tidemark.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.bench.guest.KvmGuest;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/**
 * Each system call that the commands make themselves fails once, with each error that it may have:
 * strace puts the error in its place. The command either does without, or says in one line what
 * failed, with the right status; it does not hang, crash or print a stack trace.
 *
 * <p>Which calls there are is taken from a run in which none fails; calls of the JVM are told apart
 * by what they are about. A call is known by its place among the calls of its name in its thread.
 * That place may hold a call of the JVM in another run: such a run does not count, and is made
 * again with the place that the call had there.
 *
 * <p>Ten cases by default, of different calls; {@code -Dtidemark.effort=N} makes N times as many,
 * up to all of them, with both kinds of guests. {@code -Dtidemark.case=REGEX} makes those whose
 * printed name has a match.
 */
@Timeout(value = 2, unit = TimeUnit.HOURS)
class FailingCallsTest {
  private static final int EFFORT = Integer.getInteger("tidemark.effort", 1);
  private static final Pattern WANTED = Pattern.compile(System.getProperty("tidemark.case", ""));
  private static final long LIMIT_SECONDS = 90;
  private static final int RAM = 16 << 20;

  /** What the commands open themselves, outside of sysfs. */
  private static final List<String> PATHS =
      List.of("/dev/kvm", "/dev/userfaultfd", "/dev/iommu", "/dev/vfio/vfio", "/proc/self/pagemap");

  /** Names of calls, and the errors with which they may fail. */
  private static final Map<String, List<String>> ERRORS = new LinkedHashMap<>();

  static {
    ERRORS.put("openat", List.of("EACCES", "ENOENT", "EMFILE"));
    ERRORS.put("ioctl", List.of("EPERM", "EINVAL", "ENOMEM", "EINTR", "ENOTTY", "EFAULT", "EBUSY"));
    ERRORS.put("userfaultfd", List.of("EPERM", "ENOSYS", "EMFILE"));
    ERRORS.put("socket", List.of("EMFILE", "EACCES", "EAFNOSUPPORT", "ENOBUFS"));
    ERRORS.put("bind", List.of("EADDRINUSE", "EACCES", "EADDRNOTAVAIL"));
    ERRORS.put("listen", List.of("EADDRINUSE", "EOPNOTSUPP"));
    ERRORS.put("accept4", List.of("ECONNABORTED", "EMFILE", "EINTR", "ENOBUFS"));
    ERRORS.put(
        "connect",
        List.of(
            "ENETUNREACH",
            "ECONNREFUSED",
            "EHOSTUNREACH",
            "ETIMEDOUT",
            "EINTR",
            "EADDRNOTAVAIL",
            "EACCES"));
    ERRORS.put("getsockname", List.of("ENOBUFS"));
    ERRORS.put("getsockopt", List.of("ENOPROTOOPT", "ENOMEM"));
    ERRORS.put("setsockopt", List.of("ENOPROTOOPT", "EPERM", "EACCES", "EINVAL", "ENOENT"));
    ERRORS.put("poll", List.of("ENOMEM", "EINTR"));
    ERRORS.put("read", List.of("ECONNRESET", "ETIMEDOUT", "EINTR", "EIO"));
    ERRORS.put("write", List.of("ECONNRESET", "EPIPE", "EINTR"));
    ERRORS.put("readv", List.of("ECONNRESET", "ETIMEDOUT", "EINTR"));
    ERRORS.put("writev", List.of("ECONNRESET", "EPIPE", "ETIMEDOUT", "EINTR"));
    ERRORS.put("mmap", List.of("ENOMEM", "EAGAIN", "EPERM"));
    ERRORS.put("mprotect", List.of("ENOMEM"));
    ERRORS.put("madvise", List.of("EINVAL", "ENOMEM", "EAGAIN"));
    ERRORS.put("memfd_create", List.of("EMFILE", "ENOMEM"));
    ERRORS.put("ftruncate", List.of("ENOSPC", "EFBIG"));
    ERRORS.put("fcntl", List.of("EPERM"));
    ERRORS.put("tgkill", List.of("EAGAIN"));
    ERRORS.put("clone3", List.of("EAGAIN"));
    ERRORS.put("clone", List.of("EAGAIN"));
    ERRORS.put("vfork", List.of("EAGAIN"));
    ERRORS.put("execve", List.of("EACCES"));
  }

  /** What never reaches the user: the call is made again, or the connection does without. */
  private static final Set<String> HARMLESS =
      Set.of(
          "ioctl EINTR",
          "accept4 EINTR",
          "accept4 ECONNABORTED",
          "connect EINTR",
          "poll EINTR",
          "read EINTR",
          "write EINTR",
          "readv EINTR",
          "writev EINTR");

  private static final Pattern LINE = Pattern.compile("(\\w+)\\((.*)");

  /**
   * A call that a command made.
   *
   * @param name the system call
   * @param number its place, from 1, among the calls of that name in its thread
   * @param what it was about, the same in each run
   */
  private record Call(String name, int number, String what) {
    /** The JVM makes many of these in the same thread, not always as many before this one. */
    boolean isAmongTheJvms() {
      return name.equals("mprotect") || what.equals("mmap(RAM)") || what.equals("mmap(guarded)");
    }

    /** What strace looks at when this one is to fail. */
    List<String> traced() {
      List<String> options = new ArrayList<>();
      if (name.equals("openat")) {
        PATHS.forEach(path -> options.addAll(List.of("-P", path)));
      }
      return options;
    }
  }

  private record Case(String command, Call call, String error) {
    String injection(int place) {
      return "inject=" + call.name + ":error=" + error + ":when=" + place;
    }

    boolean isHarmless() {
      return HARMLESS.contains(call.name + " " + error) || call.name.equals("setsockopt");
    }

    @Override
    public String toString() {
      return command + ": " + call.what + " (no. " + call.number + ") fails with " + error;
    }
  }

  private record Ended(boolean hung, int status, String output, String errors) {}

  private final List<Process> started = new ArrayList<>();

  @TempDir private Path folder;

  @AfterEach
  void endAll() {
    started.forEach(FailingCallsTest::end);
  }

  private static void end(Process process) {
    // Whoever is traced goes on when strace is killed first.
    process.descendants().forEach(ProcessHandle::destroyForcibly);
    process.destroyForcibly();
  }

  private static void assumeStrace() throws Exception {
    boolean there;
    try {
      there =
          new ProcessBuilder("strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "true")
                  .redirectErrorStream(true)
                  .redirectOutput(ProcessBuilder.Redirect.DISCARD)
                  .start()
                  .waitFor()
              == 0;
    } catch (IOException e) {
      there = false;
    }
    assumeTrue(there, "no strace (install it), or it may not trace here");
  }

  private Process start(String name, List<String> strace, String... arguments) throws IOException {
    List<String> command = new ArrayList<>(strace);
    command.add(Program.java());
    command.add("@" + Path.of(System.getProperty("tidemark.root"), "jdk-flags.txt"));
    // With it a JVM opens a file for each other one that runs here.
    command.add("-XX:-UsePerfData");
    command.addAll(
        List.of("-cp", System.getProperty("java.class.path"), "dev.tidemark.bench.Main"));
    command.addAll(List.of(arguments));
    Process process =
        new ProcessBuilder(command)
            .redirectOutput(folder.resolve(name + ".out").toFile())
            .redirectError(folder.resolve(name + ".err").toFile())
            .start();
    process.getOutputStream().close();
    started.add(process);
    return process;
  }

  private Ended await(String name, Process process) throws Exception {
    boolean over = process.waitFor(LIMIT_SECONDS, TimeUnit.SECONDS);
    if (!over) {
      end(process);
      process.waitFor();
    }
    started.remove(process);
    return new Ended(
        !over,
        process.exitValue(),
        Files.readString(folder.resolve(name + ".out")),
        Files.readString(folder.resolve(name + ".err")));
  }

  /** Where a receiver that was started under this name listens; null if it does not. */
  private String listening(String name, Process process) throws Exception {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(LIMIT_SECONDS);
    while (System.nanoTime() < deadline) {
      boolean alive = process.isAlive();
      String output = Files.readString(folder.resolve(name + ".out"));
      if (output.contains("\n")) {
        return Json.object(output.lines().findFirst().orElseThrow()).get("listening").getAsString();
      }
      if (!alive) {
        return null;
      }
      Thread.sleep(10);
    }
    return null;
  }

  private static String[] migrate(String guest, String... more) {
    return Stream.concat(
            Stream.of(
                "migrate", "--guest", guest, "--ram", RAM + "", "--dirty-rate", "100", "--json"),
            Stream.of(more))
        .toArray(String[]::new);
  }

  /**
   * Runs a command under strace, with whatever it needs at the other end.
   *
   * @param command probe, receive, migrate or start, and the guest
   * @return how it ended
   */
  private Ended run(String command, List<String> strace) throws Exception {
    String guest = command.substring(command.indexOf(' ') + 1);
    switch (command.substring(0, command.indexOf(' '))) {
      case "probe":
        return await("traced", start("traced", strace, "probe", "--json"));
      case "start":
        return await("traced", start("traced", strace, migrate(guest)));
      case "receive":
        {
          Process traced =
              start("traced", strace, "receive", "--listen", "tcp:127.0.0.1:0", "--json");
          String address = listening("traced", traced);
          if (address != null) {
            Process other = start("other", List.of(), migrate(guest, "--to", address));
            assertClean(await("other", other), "the other end");
            // Of a connection that failed before it brought a guest it takes note, and waits.
            if (!traced.waitFor(10, TimeUnit.SECONDS)) {
              Process next = start("next", List.of(), migrate(guest, "--to", address));
              assertClean(await("next", next), "who comes after the failure");
            }
          }
          return await("traced", traced);
        }
      default:
        {
          Process other =
              start("other", List.of(), "receive", "--listen", "tcp:127.0.0.1:0", "--json");
          String address = listening("other", other);
          assertTrue(address != null, "the receiver does not listen");
          Ended ended = await("traced", start("traced", strace, migrate(guest, "--to", address)));
          // A source that fails before it connects leaves its receiver waiting.
          if (ended.status == 0) {
            assertClean(await("other", other), "the other end");
          } else {
            end(other);
            await("other", other);
          }
          return ended;
        }
    }
  }

  private static void assertClean(Ended ended, String who) {
    String complaint = complaint(ended, null, false);
    assertEquals("", complaint, who);
  }

  /**
   * What is wrong with an ending, or nothing.
   *
   * @param error the name of the error that it must tell if it failed; or null
   * @param mustWork whether it must have done without
   */
  private static String complaint(Ended ended, String error, boolean mustWork) {
    String all = ended.output + ended.errors;
    List<String> lines = ended.errors.lines().filter(l -> l.startsWith(Tidemark.PREFIX)).toList();
    String wrong =
        ended.hung
            ? "hangs"
            : all.contains("\tat ") || all.contains("Exception")
                ? "an exception's text"
                : ended.status == Tidemark.DONE && lines.size() > 1
                    ? "status 0 and complaints"
                    : ended.status == Tidemark.DONE
                        ? ""
                        : ended.status != Tidemark.FAILED
                            ? "status " + ended.status
                            : mustWork
                                ? "fails"
                                : lines.size() != 1
                                    ? lines.size() + " lines say why"
                                    : error != null && !lines.getFirst().contains(error)
                                        ? "does not name the error"
                                        : "";
    return wrong.isEmpty() ? "" : wrong + ": " + ended.status + " " + all.strip();
  }

  /** The logs of the threads of the last traced run. */
  private List<List<String>> logs() throws IOException {
    try (Stream<Path> files = Files.list(folder)) {
      List<List<String>> logs = new ArrayList<>();
      for (Path file :
          files
              .filter(f -> f.getFileName().toString().startsWith("log."))
              .sorted(Comparator.comparing(f -> Long.parseLong(extension(f))))
              .toList()) {
        logs.add(Files.readAllLines(file));
        Files.delete(file);
      }
      return logs;
    }
  }

  private static String extension(Path file) {
    String name = file.getFileName().toString();
    return name.substring(name.lastIndexOf('.') + 1);
  }

  private List<String> strace(String calls, String... more) {
    List<String> command =
        new ArrayList<>(
            List.of(
                "strace", "-ff", "--seccomp-bpf", "-y", "-o", folder.resolve("log").toString()));
    command.addAll(List.of("-e", "trace=" + calls));
    command.addAll(List.of(more));
    return command;
  }

  /** What a line of a log is about, if it is a call of the project's own. */
  private static String own(String name, String line, String before) {
    String about = line.replaceAll(" = .*", "");
    return switch (name) {
      case "openat" -> match(about, "\"(" + String.join("|", PATHS) + ")\"");
      case "ioctl" ->
          about.contains("kvm") || about.contains("userfaultfd") || about.contains("/pagemap")
              ? match(about, ">, (_IOC\\([^)]*\\)|\\w+)")
              : about.contains("FIONBIO") ? "FIONBIO" : null;
      case "socket" ->
          about.contains("SOCK_CLOEXEC")
                  && !about.contains("AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC|SOCK_N")
              ? match(about, "(AF_\\w+)")
              : null;
      case "connect" -> about.contains("nscd") ? null : match(about, "(AF_\\w+)");
      case "setsockopt", "getsockopt" ->
          about.contains("SO_REUSEPORT") ? null : match(about, "(\\w+, \\w+)");
      case "bind", "listen", "accept4", "getsockname", "poll", "readv", "writev" -> "a socket";
      case "userfaultfd", "memfd_create" -> "it";
      case "read", "write" -> about.contains("<socket:") ? "a socket" : null;
      case "mmap" ->
          about.contains("anon_inode:") || about.contains("memfd:")
              ? match(about, "<(?:/)?(anon_inode:[\\w-]+|memfd:[\\w-]+)")
              : about.contains("MAP_POPULATE")
                  ? "guarded"
                  : about.contains("NULL, " + RAM + ",") ? "RAM" : null;
      case "mprotect" ->
          before.contains("MAP_POPULATE") && about.contains("PROT_NONE") ? "guard" : null;
      case "madvise" -> about.contains(", " + RAM + ",") ? "RAM" : null;
      case "ftruncate" -> about.contains("memfd:") ? "memfd" : null;
      case "fcntl" -> about.contains("F_ADD_SEALS") ? "F_ADD_SEALS" : null;
      case "tgkill" -> about.contains("SIGRT_18") ? "kick" : null;
      case "clone", "clone3" -> about.contains("CLONE_VFORK") ? "a process" : null;
      case "vfork" -> "a process";
      case "execve" -> about.contains("jspawnhelper") ? "jspawnhelper" : null;
      default -> null;
    };
  }

  private static String match(String text, String pattern) {
    Matcher m = Pattern.compile(pattern).matcher(text);
    return m.find() ? m.group(1) : null;
  }

  /** The project's own calls in a run: of each kind in each thread the first and the last. */
  private List<Call> calls(String command, String names) throws Exception {
    Ended ended = run(command, strace(names));
    assertEquals("", complaint(ended, null, true), command);
    Map<String, Call> found = new LinkedHashMap<>();
    int thread = 0;
    for (List<String> log : logs()) {
      thread++;
      Map<String, Integer> counts = new HashMap<>();
      String before = "";
      for (String line : log) {
        Matcher m = LINE.matcher(line);
        if (!m.lookingAt()) {
          continue;
        }
        String name = m.group(1);
        String what = own(name, line, before);
        // Those of other files are not even looked at, see Call.traced.
        int number =
            counts.merge(name, name.equals("openat") && what == null ? 0 : 1, Integer::sum);
        before = line;
        if (what != null) {
          Call call = new Call(name, number, name + "(" + what + ")");
          found.putIfAbsent(thread + " first " + call.what, call);
          found.put(thread + " last " + call.what, call);
        }
      }
    }
    return found.values().stream().distinct().toList();
  }

  /**
   * Looks up in the log of a run whether the call in question, and none of the JVM's, was failed.
   *
   * @param place where it was expected
   * @return 0 if so; else the nearest place where it was in this run, or the same
   */
  private int placeIfMissed(Call call, int place) throws IOException {
    boolean hit = false;
    boolean other = false;
    int nearest = Integer.MAX_VALUE;
    for (List<String> log : logs()) {
      int number = 0;
      String before = "";
      for (String line : log) {
        Matcher m = LINE.matcher(line);
        if (!m.lookingAt()) {
          continue;
        }
        String name = m.group(1);
        String what = name + "(" + own(name, line, before) + ")";
        before = line;
        number += name.equals(call.name) ? 1 : 0;
        if (line.contains("(INJECTED)")) {
          hit |= call.what.equals(what);
          other |= what.endsWith("(null)");
        } else if (call.what.equals(what)
            && Math.abs(number - place) < Math.abs((long) nearest - place)) {
          nearest = number;
        }
      }
    }
    return hit && !other ? 0 : nearest == Integer.MAX_VALUE ? place : nearest;
  }

  @Test
  void eachCallThatFailsIsOneLineAndNeitherHangNorCrash() throws Exception {
    assumeStrace();
    String names = String.join(",", ERRORS.keySet()).replace("vfork", "?vfork");
    List<String> commands = new ArrayList<>(List.of("probe none"));
    List<String> guests = new ArrayList<>();
    if (KvmGuest.missing().isEmpty()) {
      guests.add("kvm");
    }
    if (Userfaultfd.probe()
        .missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC)
        .or(Pagemap::missing)
        .isEmpty()) {
      guests.add("process");
    }
    assumeTrue(!guests.isEmpty(), "neither KVM nor PAGEMAP_SCAN");
    // With the default effort one guest is enough.
    for (String guest : EFFORT == 1 ? guests.subList(0, 1) : guests) {
      commands.addAll(List.of("migrate " + guest, "receive " + guest));
    }
    if (EFFORT > 1) {
      commands.add("start " + guests.getFirst());
    }

    // By how often the same call was taken before: each call once, before any comes again.
    Map<Integer, List<Case>> cases = new TreeMap<>();
    Map<String, Integer> seen = new HashMap<>();
    for (String command : commands) {
      Matcher wanted = WANTED.matcher(command + ": ");
      if (!wanted.find() && !wanted.hitEnd()) {
        continue;
      }
      for (Call call : calls(command, names)) {
        boolean spawns = Set.of("clone", "clone3", "vfork", "execve").contains(call.name);
        if (command.startsWith("start ") != spawns) {
          continue;
        }
        for (String error : ERRORS.get(call.name)) {
          int rank = seen.merge(call.name, 1, Integer::sum);
          cases.computeIfAbsent(rank, _ -> new ArrayList<>()).add(new Case(command, call, error));
        }
      }
    }
    List<Case> all =
        cases.values().stream()
            .flatMap(List::stream)
            .filter(one -> WANTED.matcher(one.toString()).find())
            .filter(one -> EFFORT > 1 || !one.call.isAmongTheJvms())
            .limit(10L * EFFORT)
            .toList();
    List<String> wrong = new ArrayList<>();
    List<String> missed = new ArrayList<>();
    int done = 0;
    for (Case one : all) {
      int place = one.call.number;
      for (int attempt = 0; attempt < 4 && place > 0; attempt++) {
        Ended ended = null;
        String complaint;
        try {
          List<String> strace = strace(traced(one.call.name), "-e", one.injection(place));
          strace.addAll(one.call.traced());
          ended = run(one.command, strace);
          complaint = complaint(ended, one.error, one.isHarmless());
        } catch (AssertionError e) {
          complaint = "the other end: " + e.getMessage();
        }
        place = placeIfMissed(one.call, place);
        if (place == 0) {
          done++;
          System.out.println(one + " -> " + (complaint.isEmpty() ? said(ended) : complaint));
          if (!complaint.isEmpty()) {
            wrong.add(one + ": " + complaint);
          }
        }
      }
      if (place > 0) {
        missed.add(one.toString());
      }
    }
    System.out.println(done + " of " + all.size() + " cases; place not found again: " + missed);
    assertEquals("", String.join("\n", wrong));
    assertTrue(missed.size() <= all.size() / 4, () -> "not tried: " + missed);
  }

  /** The mark of a guard page is the call before it. */
  private static String traced(String name) {
    return name.equals("mprotect") ? "mmap,mprotect" : name;
  }

  private static String said(Ended ended) {
    return ended.status
        + " "
        + ended.errors.lines().filter(l -> l.startsWith(Tidemark.PREFIX)).findFirst().orElse("");
  }
}
