/* Before anything is drawn: what is only for browsers without JavaScript stays hidden. */
document.documentElement.classList.add("js");
