package dev.tidemark.engine.internal;

/**
 * Threads of the library's own. They inherit nothing from the thread that happens to start them:
 * neither its group, which may be interrupted or expected to end, nor its class loader, priority
 * and inheritable thread locals, which a thread that lives on would keep reachable.
 */
public final class Daemon {
  private Daemon() {}

  /**
   * A daemon thread, not started.
   *
   * @param name the thread's name
   * @param task what it does; an interrupt must not end or change it
   */
  public static Thread unstarted(String name, Runnable task) {
    ThreadGroup group = Thread.currentThread().getThreadGroup();
    while (group.getParent() != null) {
      group = group.getParent();
    }
    return Thread.ofPlatform()
        .name(name)
        .group(group)
        .daemon()
        .priority(Thread.NORM_PRIORITY)
        .inheritInheritableThreadLocals(false)
        .unstarted(task);
  }
}
